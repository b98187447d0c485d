"""Makes a client of the API with openapi-python-client, and drives it: upload, create, poll, page, export.

Usage: client.py URL FOLDER, where FOLDER is for the client's files. Run by tests/e2e/generators.rs.
"""

import importlib
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

from openapi_spec_validator import validate

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "target/plugins/wasm32-wasip2/release"
FRAMES = 500
DEADLINE_S = 60


def generate(url, folder):
    """The client's package. What it cannot read is a warning that names the operation; only the known ones may be there."""
    description = json.load(urllib.request.urlopen(f"{url}/openapi.json"))
    validate(description)
    file = folder / "openapi.json"
    file.write_text(json.dumps(description))
    settings = folder / "settings.json"
    # As documented; it would format its files with a tool of its own choice.
    documented = json.loads((ROOT / "docs" / "openapi-python-client.json").read_text())
    settings.write_text(json.dumps({"post_hooks": []} | documented))
    command = [pathlib.Path(sys.executable).with_name("openapi-python-client"), "generate", "--path", file, "--config", settings,
               "--meta", "none", "--output-path", folder / "framehook_client", "--fail-on-warning"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    return description


def operation(tag, name):
    return importlib.import_module(f"framehook_client.api.{tag}.{name}")


def pages(call, **parameters):
    """All items, page by page."""
    from framehook_client.types import UNSET

    cursor = UNSET
    while True:
        page = call(cursor=cursor, **parameters)
        yield from page.items
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


def upload(client):
    from framehook_client.models import ModelManifest, UploadForm
    from framehook_client.types import File

    def file(path):
        return File(payload=path.open("rb"), file_name=path.name)

    model = operation("model", "upload_model")
    made = model.sync(client=client, name="street", version="1", body=file(ROOT / "assets/street.onnx"))
    assert isinstance(made.manifest, ModelManifest) and made.manifest.inputs[0].shape[1] == 3, made
    again = model.sync(client=client, name="street", version="1", body=UploadForm(file=file(ROOT / "assets/street.onnx")))
    assert again.digest == made.digest, again
    operation("video", "upload_video").sync(client=client, name="street", body=file(ROOT / "assets/demo1.mp4"))
    for name in ["yolo", "line_counter"]:
        operation("plugin", "upload_plugin").sync(client=client, body=file(PLUGINS / f"{name}.wasm"))
    names = [item.name for item in pages(operation("plugin", "list_plugin").sync, client=client, limit=1)]
    assert names == ["line-counter", "yolo"], names


def run(client, example):
    """The example of the description, as it stands there, from its creation to its end."""
    from framehook_client.models import ScenarioSpec, ScenarioState

    scenario = operation("scenario", "init_scenario").sync(client=client, body=ScenarioSpec.from_dict(example))
    deadline = time.monotonic() + DEADLINE_S
    while scenario.state != ScenarioState.COMPLETED:
        assert time.monotonic() < deadline and scenario.state != ScenarioState.FAILED, scenario
        time.sleep(0.05)
        scenario = operation("scenario", "get_scenario").sync(scenario.id, client=client)
    history = pages(operation("scenario", "get_history").sync, id=scenario.id, client=client, limit=2)
    assert [change.to for change in history][-1] == "completed"
    return scenario.id


def read(client, scenario):
    from framehook_client.models import Prediction

    get, export = operation("prediction", "get_predictions").sync, operation("prediction", "export_predictions").sync
    paged = list(pages(get, id=scenario, client=client, limit=200))
    assert [row.frame for row in paged] == list(range(FRAMES))
    assert all(len(found.box) == 4 for row in paged for found in row.detections)
    exported = [Prediction.from_dict(json.loads(line)) for line in export(scenario, client=client).splitlines()]
    assert [row.to_dict() for row in exported] == [row.to_dict() for row in paged]
    crossings = list(pages(get, id=scenario, client=client, event="line_crossed"))
    assert 0 < len(crossings) < FRAMES
    assert [row.frame for row in crossings] == [r.frame for r in paged if any(e.kind == "line_crossed" for e in r.events)]


def refused(client):
    from framehook_client.models import ErrorCode, Problem

    problem = operation("model", "get_model").sync("nothing", "1", client=client)
    assert isinstance(problem, Problem) and problem.code == ErrorCode.ARTIFACT_NOT_FOUND, problem


def main():
    url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    description = generate(url, folder)
    from framehook_client import Client

    with Client(base_url=url) as client:
        upload(client)
        read(client, run(client, description["components"]["schemas"]["ScenarioSpec"]["example"]))
        refused(client)


if __name__ == "__main__":
    main()
