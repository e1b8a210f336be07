"""Which recordings are played: by suite and by device, from what their headers say."""

import msgspec
import pytest
from tracereel.trace.format.events import DeviceInfo
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import RecordingIndex, device_folder

H100 = DeviceInfo(kind="cuda", name="NVIDIA H100 80GB HBM3")


@pytest.fixture
def two_devices(film_recordings, tmp_path, monkeypatch):
    """The package's folder with a copy of one recording under another device's name."""
    import zstandard
    from tracereel.trace.recordings import index

    own = next(iter(sorted(film_recordings.iterdir())))
    lines = zstandard.ZstdDecompressor().stream_reader(own.open("rb"), read_across_frames=True).read().splitlines()
    head = msgspec.json.decode(lines[0])
    for device in (head["device"], msgspec.to_builtins(H100)):
        folder = tmp_path / "film" / device_folder(msgspec.convert(device, DeviceInfo))
        folder.mkdir(parents=True)
        first = msgspec.json.encode({**head, "device": device})
        (folder / "static-1.jsonl").write_bytes(b"\n".join([first, *lines[1:3]]) + b"\n")
    monkeypatch.setattr(index, "PACKAGE_RECORDINGS", tmp_path)
    return tmp_path


def devices_of(index):
    return {recording.header.device.kind for recording in index.recordings}


def test_an_accelerators_recordings_come_first(two_devices):
    assert devices_of(RecordingIndex()) == {"cuda"}


@pytest.mark.parametrize(("device", "kind"), [("cpu", "cpu"), ("cuda", "cuda"), ("nvidia-h100-80gb-hbm3", "cuda")])
def test_a_device_is_chosen(two_devices, monkeypatch, device, kind):
    assert devices_of(RecordingIndex(device=device)) == {kind}
    assert devices_of(RecordingIndex(two_devices, device=device)) == {kind}
    monkeypatch.setenv("TRACEREEL_DEVICE", device)
    assert devices_of(RecordingIndex()) == {kind}


def test_a_device_without_recordings_is_refused_by_name(two_devices):
    with pytest.raises(TraceError, match="no recording was made on 'tpu'; there are those of: cpu, nvidia-h100-80gb"):
        RecordingIndex(device="tpu")
