#!/usr/bin/env python3
"""Makes the clips that tests decode, with the ffmpeg command of Debian, and says what they hold.

usage: tests/clips.py      -> .cache/clips/NAME for each clip, and the folder's name on standard output

Each clip stands for a kind of file that people have, and is named in KINDS below with what is special about it.
A frame shows its own number: the top quarter is eight cells, of which cell i is light if bit i of the number is
set; below are a red, a green, a blue and a grey quarter. What is right is never kept here: tests ask ffprobe and
ffmpeg. A folder that this very script made is used again."""
import hashlib, os, pathlib, random, shutil, struct, subprocess, sys, tempfile

CACHE = pathlib.Path(__file__).resolve().parent.parent / '.cache' / 'clips'
X264 = '-c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p'
BFRAMES = X264 + ' -bf 3 -g 30 -x264-params b-pyramid=normal:b-adapt=0'
VP9 = '-c:v libvpx-vp9 -crf 15 -b:v 0 -deadline realtime -cpu-used 8 -pix_fmt yuv420p'
BT709 = '-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv'
QUIET265 = '-c:v libx265 -crf 12 -x265-params log-level=none'


def frames(width, height, count, first=0):
    """Raw RGB frames, as described above."""
    pixels = bytearray()
    for number in range(first, first + count):
        top = height // 4
        edges = [round(i * width / 8) for i in range(9)]
        cells = [bytes([235 if number >> i & 1 else 20]) * 3 * (edges[i + 1] - edges[i]) for i in range(8)]
        halves = (width // 2, width - width // 2)
        upper = bytes((200, 40, 40)) * halves[0] + bytes((40, 180, 40)) * halves[1]
        lower = bytes((40, 40, 200)) * halves[0] + bytes((190, 190, 190)) * halves[1]
        middle = (height - top) // 2
        pixels += b''.join(cells) * top + upper * middle + lower * (height - top - middle)
    return bytes(pixels)


def run(arguments, feed=None):
    done = subprocess.run(['ffmpeg', '-hide_banner', '-loglevel', 'error', '-y', *arguments], input=feed, capture_output=True)
    if done.returncode:
        sys.exit(f"clips: ffmpeg {' '.join(arguments)}: {done.stderr.decode()[-2000:]}")


def encode(name, options, width=320, height=240, count=40, first=0, rate=25):
    raw = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{width}x{height}', '-r', str(rate), '-i', '-']
    run(raw + options.split() + [name], frames(width, height, count, first))


def remux(source, name, options='-c copy', before=''):
    run([*before.split(), '-i', source, *options.split(), name])


def join(name, *parts):
    pathlib.Path(name).write_bytes(b''.join(pathlib.Path(part).read_bytes() for part in parts))
    for part in parts:
        os.remove(part)


def change(source, name, edit):
    data = bytearray(pathlib.Path(source).read_bytes())
    edit(data)
    pathlib.Path(name).write_bytes(data)


def turned(matrix):
    """An edit that writes a display matrix into the first track."""
    def edit(data):
        at = data.find(b'tkhd') + 4
        at += 52 if data[at] else 40
        a, b, c, d = (n << 16 for n in matrix)
        data[at:at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return edit


def unknown_duration(data):
    at = data.find(b'mvhd') + 4
    data[at + 16:at + 20] = b'\xff' * 4


def bit_errors(data):
    """In the middle third, as a bad card or lost packets make them."""
    dice = random.Random(7)
    for _ in range(25):
        data[dice.randrange(len(data) // 3, len(data) // 2)] ^= 1 << dice.randrange(8)


def lose(share):
    def edit(data):
        del data[int(len(data) * share):]
    return edit


def orientation():
    for name, matrix in [('rot90', (0, 1, -1, 0)), ('rot180', (-1, 0, 0, -1)), ('rot270', (0, -1, 1, 0)),
                         ('mirror', (-1, 0, 0, 1)), ('flip', (1, 0, 0, -1)), ('transpose', (0, 1, 1, 0))]:
        change('plain.mp4', f'{name}.mp4', turned(matrix))
    encode('odd.mp4', X264.replace('yuv420p', 'yuv444p'), 322, 242, 20)
    change('odd.mp4', 'rot90_odd.mp4', turned((0, 1, -1, 0)))
    encode('ten.mov', f'{QUIET265} -pix_fmt yuv420p10le -tag:v hvc1', count=10)
    change('ten.mov', 'rot270_10bit.mov', turned((0, -1, 1, 0)))


def sizes():
    for name, small, large in [('grows', (320, 240), (640, 480)), ('shrinks', (640, 480), (320, 240))]:
        encode('a.ts', X264, *small, 20)
        encode('b.ts', X264 + ' -output_ts_offset 0.8', *large, 20, 20)
        join(f'{name}.ts', 'a.ts', 'b.ts')
    encode('a.ts', X264, count=30)
    encode('b.ts', X264 + ' -output_ts_offset 0.7', count=40)
    join('overlap.ts', 'a.ts', 'b.ts')
    encode('a.mpg', '-c:v mpeg2video -q:v 2', 320, 240, 15)
    encode('b.mpg', '-c:v mpeg2video -q:v 2', 352, 288, 15, 15)
    join('grows.mpg', 'a.mpg', 'b.mpg')


def formats():
    encode('a.mjpeg', '-c:v mjpeg -q:v 2 -pix_fmt yuvj422p', count=1)
    encode('b.mjpeg', '-c:v mjpeg -q:v 2 -pix_fmt yuvj420p', count=29, first=1)
    join('ab.mjpeg', 'a.mjpeg', 'b.mjpeg')
    remux('ab.mjpeg', 'changes_format.avi', before='-f mjpeg -framerate 25')
    os.remove('ab.mjpeg')


def colours():
    encode('bt709.mp4', f'{X264} {BT709}', count=20)
    encode('bt709_720p.mkv', f'{X264} {BT709}', 1280, 720, 5)
    encode('hevc10.mp4', f'{QUIET265}:colormatrix=bt709:range=limited -pix_fmt yuv420p10le -tag:v hvc1 {BT709}', count=20)
    encode('full_range.mp4', X264 + ' -vf scale=out_range=pc -color_range pc', count=20)
    encode('bt2020.mkv', X264 + ' -vf scale=out_color_matrix=bt2020:out_range=tv -colorspace bt2020nc -color_range tv', count=20)
    for name, codec in [('yuv422.mp4', X264.replace('yuv420p', 'yuv422p')), ('yuv444_10.mp4', X264.replace('yuv420p', 'yuv444p10le')),
                        ('gray.mkv', '-c:v ffv1 -pix_fmt gray'), ('gray10.mkv', '-c:v ffv1 -pix_fmt gray10le'),
                        ('gray16.mkv', '-c:v ffv1 -pix_fmt gray16le'), ('alpha.mkv', '-c:v ffv1 -pix_fmt yuva420p'),
                        ('rgb16.mkv', '-c:v ffv1 -pix_fmt gbrp16le'), ('bgra.mkv', '-c:v ffv1 -pix_fmt bgra'),
                        ('rgb.avi', '-c:v rawvideo -pix_fmt bgr24'), ('palette.mov', '-c:v qtrle -pix_fmt rgb24'),
                        ('prores.mov', '-c:v prores_ks -profile:v 3'), ('prores4444.mov', '-c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le'),
                        ('interlaced.ts', X264 + ' -flags +ilme+ildct -x264-params tff=1'), ('interlaced.mpg', '-c:v mpeg2video -q:v 2 -flags +ilme+ildct')]:
        encode(name, codec, count=12)


def times():
    encode('d.mkv', X264 + ' -bf 0')
    for name, setts in [('gapdup', 'if(lt(N,20),N*40,if(eq(N,21),10800800,N*40+10800000))'), ('pairs', 'N*40-if(eq(mod(N,10),5),40,0)'),
                        ('late_dup', 'if(eq(N,30),1160,N*40)')]:
        remux('d.mkv', f'{name}.mkv', '-c copy -bsf:v setts=ts=' + setts.replace(',', '\\,'))
    os.remove('d.mkv')
    passthrough = '-fps_mode passthrough'
    encode('gapend.mp4', f"-vf setpts=(N*0.04+if(gte(N\\,20)\\,3600\\,0))/TB {passthrough} {X264}", count=23)
    encode('vfr.mp4', f'-vf select=not(mod(n\\,7))+not(mod(n\\,3)),setpts=N*0.033/TB+floor(N/5)*0.171/TB {passthrough} {X264}', count=60, rate=30)
    encode('recorder.webm', f'-vf select=not(mod(n\\,2))+not(mod(n\\,3)),setpts=(N*41+mod(N\\,3)*13)/1000/TB {passthrough} {VP9} -f webm -live 1', count=60, rate=30)
    encode('ntsc.mp4', X264, rate='30000/1001')
    encode('slow.mkv', X264, count=8, rate='1/7')
    encode('fast.mp4', X264, count=30, rate=240)
    for name in ['h264.avi', 'h264.flv', 'raw.h264', 'h264.mpg']:
        remux('bframes.mkv', name, '-c copy' if 'flv' in name else '-c copy -bsf:v h264_mp4toannexb')


def ends():
    sound = '-f lavfi -i sine=300:d={} -c:v copy -c:a {}'
    remux('bframes.mkv', 'longaudio.mkv', sound.format(6, 'libvorbis'))
    remux('bframes.mkv', 'longaudio.ts', sound.format(6, 'mp2'))
    remux('bframes.mp4', 'longaudio.mp4', sound.format(9, 'aac'))
    remux('bframes.mkv', 'latevideo.mkv', sound.format(5.4, 'libvorbis'), '-itsoffset 3')
    remux('bframes.mkv', 'frag.mp4', '-c copy -movflags +frag_keyframe+empty_moov+default_base_moof')
    change('frag.mp4', 'frag_unknown_duration.mp4', unknown_duration)
    remux('bframes.mp4', 'elst.mp4', '-c copy -avoid_negative_ts disabled', '-ss 1.5')
    remux('bframes.mp4', 'elst.mov', '-c copy -avoid_negative_ts disabled', '-ss 0.7')
    run('-f lavfi -i testsrc2=s=320x240:r=1/30:d=180 -f lavfi -i sine=d=180:r=48000 -c:a aac -b:a 32k -pix_fmt yuv420p sparse_audio.mp4'.split())
    run('-f lavfi -i testsrc2=s=320x240:r=1/20:d=120 -f lavfi -i sine=d=120 -c:v libx264 -c:a mp2 sparse_audio.ts'.split())
    for name, tail in [('text', b'GPSINFO v2 lat=0.0000 lon=0.0000 speed=0\n' * 20), ('zeros', bytes(3000)), ('bytes', random.Random(1).randbytes(999))]:
        change('plain.mp4', f'trailer_{name}.mp4', lambda data: data.extend(tail))


def damage():
    change('bframes.mp4', 'bit_errors.mp4', bit_errors)
    change('bframes.mkv', 'bit_errors.mkv', bit_errors)
    change('longaudio.ts', 'bit_errors.ts', bit_errors)
    remux('bframes.mp4', 'front.mp4', '-c copy -movflags +faststart')
    for name in ['front.mp4', 'frag.mp4', 'bframes.mkv', 'h264.avi', 'h264.flv', 'longaudio.ts']:
        change(name, f'cut_{name}', lose(0.6))


def main():
    wanted = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    stamp = CACHE / 'made-by'
    if not (stamp.exists() and stamp.read_text() == wanted):
        CACHE.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
            os.chdir(folder)
            encode('plain.mp4', X264)
            encode('bframes.mkv', BFRAMES, count=60)
            remux('bframes.mkv', 'bframes.mp4')
            encode('long_gop.mp4', X264 + ' -bf 3 -g 600', count=250)
            encode('open_gop.mkv', X264 + ' -bf 3 -g 20 -x264-params open-gop=1', count=120)
            encode('intra_refresh.mkv', X264 + ' -g 20 -x264-params intra-refresh=1', count=120)
            for make in [orientation, sizes, formats, colours, times, ends, damage]:
                make()
            encode('raw.y4m', '-pix_fmt yuv420p -f yuv4mpegpipe', count=10)
            encode('still.avif', '-c:v libaom-av1 -still-picture 1 -crf 20 -cpu-used 8 -frames:v 1', count=1)
            pathlib.Path('made-by').write_text(wanted)
            shutil.rmtree(CACHE, ignore_errors=True)
            shutil.copytree(folder, CACHE)
    print(CACHE)


main()
