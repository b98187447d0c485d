#!/usr/bin/env python3
"""Makes the models that tests run, each of a kind that people export, and says what they give.

usage: tests/models.py               -> .cache/models/NAME for each model, and the folder's name
       tests/models.py RGB < JSON    -> what ONNX Runtime's own binding gives for a picture, as JSON

RGB is a file with the bytes of a picture of WIDTH x HEIGHT pixels. The JSON that is read is a list of
{"model", "layout", "feeds"}: the order of the image's dimensions, and flat lists of numbers for the other inputs.
The image is made of the picture here, by NumPy and OpenCV, with the model's own type. What is written is a list of
the outputs of each. The script starts itself anew in a virtual environment that has onnx and onnxruntime. A folder
that this very script made is used again."""
import fcntl, hashlib, json, os, pathlib, shutil, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / '.cache' / 'models'
PYTHON = ROOT / '.cache' / 'venv-assets' / 'bin' / 'python'

# Tests run side by side, and one makes what all of them use. The lock ends with the process, or where another program
# takes its place.
CACHE.parent.mkdir(exist_ok=True)
LOCK = open(CACHE.parent / 'models.lock', 'w')
fcntl.flock(LOCK, fcntl.LOCK_EX)

if pathlib.Path(sys.prefix) != PYTHON.parent.parent:
    made = subprocess.run(['sh', ROOT / 'scripts/venv.sh', 'assets', ROOT / 'assets/make/requirements.txt'], stdout=subprocess.DEVNULL)
    if made.returncode:
        sys.exit('models: there is no Python with onnx and onnxruntime; what pip said is above')
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

import cv2, numpy, onnx, onnxruntime
from onnx import TensorProto as T, helper, numpy_helper

# Those of the demo clip, so that nothing is resized.
HEIGHT, WIDTH = 360, 640
TYPES = {'tensor(float)': 'float32', 'tensor(float16)': 'float16', 'tensor(double)': 'float64', 'tensor(uint8)': 'uint8',
         'tensor(int8)': 'int8', 'tensor(int32)': 'int32', 'tensor(int64)': 'int64', 'tensor(bool)': 'bool'}


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, array, kind=numpy.int64):
    return numpy_helper.from_array(numpy.asarray(array, kind), name)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model(nodes, inputs, outputs, constants=(), opset=13, ir=8, domains=()):
    graph = helper.make_graph(nodes, 'g', inputs, outputs, list(constants))
    opsets = [helper.make_opsetid('', opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = ir
    return made


def image(shape, kind=T.FLOAT, axes=(2, 3), dynamic=None):
    """The mean of each channel of each row of the batch, as `y`."""
    nodes = [node('Cast', 'images', 'f', to=T.FLOAT), node('ReduceMean', 'f', 'y', axes=list(axes), keepdims=0)]
    return model(nodes, [value('images', kind, shape)], [value('y', T.FLOAT, [shape[0] if dynamic is None else dynamic, None])])


# A small part of an image, so that each value is compared, not only their mean.
def corner(shape, kind, starts, ends, axes):
    nodes = [node('Slice', 'images s e a', 'c'), node('Cast', 'c', 'y', to=T.FLOAT)]
    indices = [constant(name, values) for name, values in (('s', starts), ('e', ends), ('a', axes))]
    return model(nodes, [value('images', kind, shape)], [value('y', T.FLOAT, None)], indices)


def two(extra, kind, shape, name='images', more=()):
    """`y` is the other inputs, so that what feeds them is seen; `g` is the mean of each channel."""
    inputs = [value(name, T.FLOAT, [1, 3, HEIGHT, WIDTH]), value(extra, kind, shape), *(value(*each) for each in more)]
    nodes = [node('ReduceMean', name, 'g', axes=[2, 3], keepdims=0), node('Cast', extra, 'y', to=T.FLOAT)]
    nodes += [node('Cast', each[0], f'y_{each[0]}', to=T.FLOAT) for each in more]
    outputs = [value('g', T.FLOAT, None), value('y', T.FLOAT, None), *(value(f'y_{each[0]}', T.FLOAT, None) for each in more)]
    return model(nodes, inputs, outputs)


def convolution(opset=13, ir=8):
    nodes = [node('Conv', 'images w', 'p', kernel_shape=[3, 3]), node('Relu', 'p', 'r'), node('GlobalAveragePool', 'r', 'y')]
    # A mean, so that what pixels differ by is not made larger.
    weights = numpy.random.RandomState(5).rand(16, 3, 3, 3) / 27
    inputs = [value('images', T.FLOAT, [1, 3, HEIGHT, WIDTH])]
    if ir < 4:
        inputs.append(value('w', T.FLOAT, [16, 3, 3, 3]))
    return model(nodes, inputs, [value('y', T.FLOAT, [1, 16, 1, 1])], [constant('w', weights, numpy.float32)], opset, ir)


def quantised(per_channel):
    """The same with whole numbers of 8 bits, as quantisers for ONNX Runtime write it: each step between two lists."""
    weights = numpy.random.RandomState(5).rand(16, 3, 3, 3) / 27 - 0.01
    scale = numpy.abs(weights).max(axis=(1, 2, 3) if per_channel else None) / 127
    whole = numpy.round(weights / scale.reshape((-1, 1, 1, 1)))
    axis = dict(axis=0) if per_channel else {}
    nodes = [node('QuantizeLinear', 'images s z', 'q'), node('DequantizeLinear', 'q s z', 'd'),
             node('DequantizeLinear', 'w ws wz', 'dw', **axis), node('Conv', 'd dw', 'c', kernel_shape=[3, 3]), node('Relu', 'c', 'r'),
             node('QuantizeLinear', 'r s z', 'rq'), node('DequantizeLinear', 'rq s z', 'rd'), node('GlobalAveragePool', 'rd', 'y')]
    constants = [constant('s', 1 / 255, numpy.float32), constant('z', 0, numpy.uint8), constant('w', whole, numpy.int8),
                 constant('ws', scale, numpy.float32), constant('wz', numpy.zeros_like(scale), numpy.int8)]
    return model(nodes, [value('images', T.FLOAT, [1, 3, HEIGHT, WIDTH])], [value('y', T.FLOAT, [1, 16, 1, 1])], constants)


def integers():
    """The same where a step is measured on each frame and what is multiplied are whole numbers."""
    whole = numpy.random.RandomState(5).randint(-40, 127, (16, 3, 3, 3))
    nodes = [node('DynamicQuantizeLinear', 'images', 'q s z'), node('ConvInteger', 'q w z', 'c', kernel_shape=[3, 3]),
             node('Cast', 'c', 'f', to=T.FLOAT), node('Mul', 'f s', 'm'), node('Mul', 'm small', 'n'), node('GlobalAveragePool', 'n', 'y')]
    constants = [constant('w', whole, numpy.int8), constant('small', 1 / 2000, numpy.float32)]
    return model(nodes, [value('images', T.FLOAT, [1, 3, HEIGHT, WIDTH])], [value('y', T.FLOAT, [1, 16, 1, 1])], constants)


def outputs(nodes, made, constants=()):
    """From `s` [1, 1], the mean of the image."""
    mean = [node('GlobalAveragePool', 'images', 'm'), node('ReduceMean', 'm', 's', axes=[1, 2], keepdims=0)]
    return model(mean + nodes, [value('images', T.FLOAT, [1, 3, HEIGHT, WIDTH])], made, constants)


def big(kind, number, array):
    """A number that float32 would round, whatever the image."""
    nodes = [node('Mul', 's zero', 'z'), node('Cast', 'z', 'zi', to=kind), node('Add', 'zi number', 'y')]
    constants = [constant('zero', 0, numpy.float32), constant('number', number, array)]
    return outputs(nodes, [value('y', kind, None)], constants)


def rows(nodes, made):
    """A batch of 4; from `m` [4, 3], the means of the channels of each row."""
    mean = [node('ReduceMean', 'images', 'm', axes=[2, 3], keepdims=0)]
    return model(mean + nodes, [value('images', T.FLOAT, [4, 3, HEIGHT, WIDTH])], made,
                 [constant('numbers', [[0], [1], [2], [3]], numpy.float32), constant('zero', 0, numpy.float32), constant('flat', [1, 12])])


def named(made, **metadata):
    """With what exporters write about a model."""
    helper.set_model_props(made, metadata)
    return made


CLASSES = dict(classlabels_strings=['a', 'b'], name='zip')
NHWC, NCHW = dict(axes=(1, 2)), dict(axes=(2, 3))
H, W = HEIGHT, WIDTH
MODELS = {
    'nhwc_dyn': lambda: image(['n', 'h', 'w', 3], **NHWC),
    'nhwc_u8': lambda: image([1, H, W, 3], T.UINT8, **NHWC),
    'nhwc_f32': lambda: image([1, H, W, 3], **NHWC),
    'nhwc_f16': lambda: image([1, H, W, 3], T.FLOAT16, **NHWC),
    'nchw_u8': lambda: image([1, 3, H, W], T.UINT8),
    'nchw_f16': lambda: image([1, 3, H, W], T.FLOAT16),
    'nchw_i8': lambda: image([1, 3, H, W], T.INT8),
    'grey_f32': lambda: image([1, 1, H, W]),
    'grey_i8': lambda: image([1, H, W, 1], T.INT8, **NHWC),
    'rgba_u8': lambda: image([1, H, W, 4], T.UINT8, **NHWC),
    'rgba_f32': lambda: image([1, 4, H, W]),
    'open': lambda: image(['n', 'c', 'h', 'w']),
    'batch4': lambda: image([4, 3, H, W]),
    'batch4_nhwc_u8': lambda: image([4, H, W, 3], T.UINT8, **NHWC),
    # Which row it was, whatever its image; and the rows of all, which belong to no single one.
    'batch4_number': lambda: rows([node('Mul', 'm zero', 'z'), node('Add', 'z numbers', 'y')], [value('y', T.FLOAT, [4, 3])]),
    'batch4_joined': lambda: rows([node('Reshape', 'm flat', 'y')], [value('y', T.FLOAT, [1, 12])]),
    'corner_nhwc_u8': lambda: corner([1, H, W, 3], T.UINT8, [3, 5], [7, 9], [1, 2]),
    'corner_nhwc_f16': lambda: corner([1, H, W, 3], T.FLOAT16, [3, 5], [7, 9], [1, 2]),
    'corner_i8': lambda: corner([1, 3, H, W], T.INT8, [3, 5], [7, 9], [2, 3]),
    'rtdetr': lambda: two('orig_target_sizes', T.INT64, ['n', 2]),
    'paddle': lambda: two('im_shape', T.FLOAT, [1, 2], 'image', [('scale_factor', T.FLOAT, [1, 2])]),
    'threshold': lambda: two('threshold', T.DOUBLE, []),
    'int64_big': lambda: big(T.INT64, 20000001, numpy.int64),
    'int32_big': lambda: big(T.INT32, -20000001, numpy.int32),
    'uint64_big': lambda: big(T.UINT64, 2**63 + 1, numpy.uint64),
    'double_big': lambda: big(T.DOUBLE, 0.1, numpy.float64),
    'nan_inf': lambda: outputs([node('Div', 's zero', 'inf'), node('Sub', 'inf inf', 'nan'), node('Concat', 's inf nan', 'y', axis=1)],
                               [value('y', T.FLOAT, None)], [constant('zero', 0, numpy.float32)]),
    'string_and_float': lambda: outputs([node('Cast', 's', 'label', to=T.STRING), node('Identity', 's', 'score')],
                                        [value('label', T.STRING, None), value('score', T.FLOAT, None)]),
    'sequence_and_float': lambda: outputs([node('SequenceConstruct', 's s', 'list'), node('Identity', 's', 'score')],
                                          [helper.make_tensor_sequence_value_info('list', T.FLOAT, None), value('score', T.FLOAT, None)]),
    'named': lambda: named(image([1, 3, H, W]), names="{0: 'zero', 2: \"driver's seat\"}", task='detect', stride='[8, 16, 32]'),
    'convolution': convolution,
    'quantised': lambda: quantised(False),
    'quantised_channels': lambda: quantised(True),
    'quantised_dynamic': integers,
    **{f'opset{opset}': lambda opset=opset: convolution(opset, 8) for opset in [*range(7, 27), 99]},
    **{f'ir{ir}': lambda ir=ir: convolution(9, ir) for ir in [*range(3, 14), 99]},
}


def session(path, options=None):
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def optimised(folder, name, level, **settings):
    """As ONNX Runtime itself writes a model that it has loaded."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / name)
    for key, setting in settings.items():
        options.add_session_config_entry(f'session.{key}', setting)
    session(folder / 'convolution', options)


def make(folder):
    for name, build in MODELS.items():
        (folder / name).write_bytes(build().SerializeToString())
    optimised(folder, 'ort_basic.onnx', 'ORT_ENABLE_BASIC')
    optimised(folder, 'ort_all.onnx', 'ORT_ENABLE_ALL')
    optimised(folder, 'convolution.ort', 'ORT_ENABLE_BASIC', save_model_format='ORT')


def cached():
    """The folder of the models; from then on it is nobody's turn."""
    wanted = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    stamp = CACHE / 'made-by'
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir()
        make(CACHE)
        stamp.write_text(wanted)
    fcntl.flock(LOCK, fcntl.LOCK_UN)
    return CACHE


def picture(rgb, needed, layout):
    """What a model takes for this picture: bytes, or 0 to 1, in the first row of its batch."""
    kind = TYPES[needed.type]
    channels = needed.shape[1 if layout == 'nchw' else 3]
    if channels == 1:
        rgb = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None]
    if channels == 4:
        rgb = numpy.concatenate([rgb, numpy.full_like(rgb[:, :, :1], 255)], axis=2)
    values = rgb.astype(numpy.int16) - 128 if kind == 'int8' else rgb if kind == 'uint8' else rgb / 255
    row = (values.transpose(2, 0, 1) if layout == 'nchw' else values).astype(kind)
    batch = needed.shape[0] if isinstance(needed.shape[0], int) else 1
    return numpy.stack([row] + [numpy.zeros_like(row)] * (batch - 1)), batch


def judge(folder, rgb, case):
    loaded = session(folder / case['model'])
    feeds = {}
    for needed in loaded.get_inputs():
        if needed.name in case['feeds']:
            shape = [side if isinstance(side, int) else -1 for side in needed.shape]
            feeds[needed.name] = numpy.asarray(case['feeds'][needed.name], TYPES[needed.type]).reshape(shape)
        else:
            feeds[needed.name], batch = picture(rgb, needed, case['layout'])
    numbers, texts = [], []
    for output, result in zip(loaded.get_outputs(), loaded.run(None, feeds)):
        if isinstance(result, numpy.ndarray):
            result = result[:1] if batch > 1 else result
            element = {'f': 'Float', 'i': 'Integer', 'u': 'Integer', 'b': 'Integer'}.get(result.dtype.kind, 'Text')
            made = {'name': output.name, 'shape': result.shape, 'element': element, 'numbers': [str(each) for each in result.ravel()]}
            (texts if element == 'Text' else numbers).append(made)
    # Hooks see text behind all numbers.
    return numbers + texts


if len(sys.argv) > 1:
    pixels = numpy.fromfile(sys.argv[1], numpy.uint8).reshape(HEIGHT, WIDTH, 3)
    models = cached()
    print(json.dumps([judge(models, pixels, case) for case in json.load(sys.stdin)]))
else:
    print(cached())
