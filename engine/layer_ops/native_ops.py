"""Layer operations in C (`cpu.c`), for bf16 on a CPU: built once with the machine's own compiler, then loaded.

Between its matrix products a decode step is many small operations; torch takes longer to start each than to compute it.
Without a compiler the torch operations compute the same, slower. Knows compilers, pointers and the C code's layout of
the KV cache.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from tracereel.engine.attention import BatchLayout, DecoderShape
from tracereel.engine.model_store import cache_folder
from tracereel.trace.format.storage import replace_text

SOURCE = Path(__file__).with_name("cpu.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
LANES = 16
"""Elements of the C code's vectors: what a head's size and a block must be a multiple of."""
MAX_HEAD_DIM = 512
_TILE_ROWS = 12
"""Query rows that share one load of the cache; as in the C code."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_Pointer, _Int, _Float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class NativeOpsError(Exception):
    """The C kernels are not available here; the message says why, in one line."""


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Int) for name in ("heads", "kv_heads", "head_dim", "block_size", "rotary_dim")),
        *((name, _Float) for name in ("scale", "epsilon")),
        *((name, _Pointer) for name in ("cos", "sin", "q_norm", "k_norm", "keys", "values")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("tokens", _Int),
        *((name, _Pointer) for name in ("positions", "slots", "tables")),
        ("table_width", _Int),
        ("tiles", _Int),
        ("tile_starts", _Pointer),
    )


class NativeLayerOps:
    """The C operations and their KV cache. Raises NativeOpsError where they are not available for this shape."""

    name = "C, built for this processor"
    captures = False

    def __init__(self, shape: DecoderShape, block_size: int):
        if shape.device.type != "cpu" or shape.dtype != torch.bfloat16:
            raise NativeOpsError(f"they compute bf16 on a CPU, not {shape.dtype} on {shape.device}")
        if shape.head_dim % LANES or shape.head_dim > MAX_HEAD_DIM or block_size % LANES:
            raise NativeOpsError(
                f"head_dim ({shape.head_dim}) and block_size ({block_size}) must be multiples of {LANES}"
            )
        self._library = _load()
        self._shape = shape
        self._block_size = block_size
        self._layers: list[_Layer] = []
        self._epsilon = _Float(shape.epsilon)
        self._tokens = 0
        self._buffers: dict[tuple[str, int], tuple[torch.Tensor, int]] = {}

    @property
    def tile_tokens(self) -> int:
        """Tokens whose query rows share one load of the cache."""
        return max(1, _TILE_ROWS // (self._shape.heads // self._shape.kv_heads))

    def allocate(self, num_blocks: int) -> None:
        """Make the KV cache; see the contract."""
        shape = self._shape
        size = (shape.layers, num_blocks * shape.kv_heads * shape.head_dim * self._block_size)
        self._keys = torch.zeros(size, dtype=shape.dtype)
        self._values = torch.zeros(size, dtype=shape.dtype)
        self._layers = [self._layer(i) for i in range(shape.layers)]

    def _layer(self, index: int) -> _Layer:
        shape = self._shape
        norms = shape.qk_norms[index] if shape.qk_norms is not None else None
        return _Layer(
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            block_size=self._block_size,
            rotary_dim=2 * shape.cos.shape[1],
            scale=shape.head_dim**-0.5,
            epsilon=shape.epsilon,
            cos=shape.cos.data_ptr(),
            sin=shape.sin.data_ptr(),
            q_norm=norms[0].data_ptr() if norms else None,
            k_norm=norms[1].data_ptr() if norms else None,
            keys=self._keys[index].data_ptr(),
            values=self._values[index].data_ptr(),
        )

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step: which tokens share the loads of the cache."""
        if len(layout.positions) != self._tokens:
            self._tokens = len(layout.positions)
            self._buffers.clear()
        self._layout = layout  # keeps the arrays alive that the step points to
        decodes = torch.arange(layout.num_decodes, dtype=torch.int32)
        self._tile_starts = torch.cat([decodes, layout.tile_starts])
        self._step = _Step(
            tokens=self._tokens,
            positions=layout.positions.data_ptr(),
            slots=layout.slots.data_ptr(),
            tables=layout.tables.data_ptr(),
            table_width=layout.tables.shape[1],
            tiles=len(self._tile_starts) - 1,
            tile_starts=self._tile_starts.data_ptr(),
        )

    def products(self, rows: int, hidden: int) -> None:
        """The model's own are the fastest on a CPU."""

    def add_rms_norm(self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Add, then RMSNorm; see the contract."""
        rows, width = residual.shape
        out, to = self._buffer("add_rms_norm", rows, width)
        added = None if delta is None else delta.data_ptr()
        self._library.add_norm(rows, width, residual.data_ptr(), added, weight.data_ptr(), self._epsilon, to)
        return out

    def last_norm(
        self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """RMSNorm of some rows; see the contract."""
        return self.add_rms_norm(residual[rows], None if delta is None else delta[rows], weight)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store, attend; see the contract."""
        out, to = self._buffer("attend", qkv.shape[0], self._shape.heads * self._shape.head_dim)
        if self._library.attend(self._layers[layer], self._step, qkv.data_ptr(), to):
            raise MemoryError("attention: no memory for the scores of a step")
        return out

    def silu_and_mul(self, both: torch.Tensor) -> torch.Tensor:
        """SwiGLU; see the contract."""
        rows, width = both.shape
        out, to = self._buffer("silu_and_mul", rows, width // 2)
        self._library.gate(rows, width // 2, both.data_ptr(), to)
        return out

    def _buffer(self, use: str, rows: int, width: int) -> tuple[torch.Tensor, int]:
        """Where a kernel writes, and its address: the same in every layer, for the product that follows at once."""
        key = (use, rows)
        if key not in self._buffers:
            out = torch.empty((rows, width), dtype=torch.bfloat16)
            self._buffers[key] = out, out.data_ptr()
        return self._buffers[key]


@cache
def _load() -> ctypes.CDLL:
    """The library, built where there is none of this source, compiler and processor yet."""
    command = _compiler()
    key = hashlib.sha256(SOURCE.read_bytes())
    for part in (*command, *FLAGS, _version(command), platform.machine(), _processor()):
        key.update(part.encode() + b"\0")
    path = cache_folder() / "kernels" / f"cpu-{key.hexdigest()[:16]}.so"
    if not _is_ours(path):
        _build(command, path)
        if not _is_ours(path):
            raise NativeOpsError(f"{path}: others may write to it or to its folder; make them yours alone")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeOpsError(f"{path} cannot be loaded ({error})") from None
    library.add_norm.argtypes = (_Int, _Int, _Pointer, _Pointer, _Pointer, _Float, _Pointer)
    library.gate.argtypes = (_Int, _Int, _Pointer, _Pointer)
    library.attend.argtypes = (ctypes.POINTER(_Layer), ctypes.POINTER(_Step), _Pointer, _Pointer)
    library.add_norm.restype = library.gate.restype = None
    return library


def _is_ours(path: Path) -> bool:
    """Is the library the one that was built here? No other user may write to it or its folder, its hash is as noted.

    It runs with all that this process may do.
    """
    try:
        for place in (path.parent, path):
            found = place.lstat()
            if found.st_uid not in (os.geteuid(), 0) or found.st_mode & _OTHERS_WRITE or stat.S_ISLNK(found.st_mode):
                return False
        return _digest_path(path).read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _compiler() -> tuple[str, ...]:
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return tuple(command)
    raise NativeOpsError("there is no C compiler (cc, gcc, clang or $CC)")


def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0]


def _processor() -> str:
    """What `-march=native` depends on: machines with other processors may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _build(command: tuple[str, ...], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.stat().st_uid == os.geteuid():
            path.parent.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            # Two steps: linked with the optimizing flags, the library would change the process's rounding.
            built, linked = Path(folder) / "cpu.o", Path(folder) / "cpu.so"
            for arguments in (
                (*FLAGS, "-c", str(SOURCE), "-o", str(built)),
                ("-shared", "-fopenmp", str(built), "-o", str(linked), "-lm"),
            ):
                done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
                if done.returncode:
                    fault = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
                    raise NativeOpsError(f"{command[0]} cannot build them ({fault})")
            linked.chmod(0o755)
            replace_text(_digest_path(path), hashlib.sha256(linked.read_bytes()).hexdigest())
            linked.replace(path)
    except OSError as error:
        raise NativeOpsError(f"{path}: cannot be written ({error.strerror or error})") from None
