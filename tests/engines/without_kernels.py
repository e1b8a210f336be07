"""Prints what SGLang requires but for kernels for GPUs and what only other models than plain text ones need.

SGLang's scheduler imports without them; on a CPU PyTorch computes instead.
"""

import re
from importlib import metadata

NOT_NEEDED = re.compile(
    r"cuda-python|flash|humming|kernels|sglang-kernel|nvidia|nvshmem|quack|sgl-|tilelang|torch_memory_saver|torchcodec"
    r"|torchaudio|decord|av\b|datasets|modelscope|timm|soundfile|blobfile|build|py-spy|anthropic|tml-|deepseek|numba"
    r"|mistral|cutlass|smg-grpc"
)


def main() -> None:
    for requirement in metadata.requires("sglang") or ():
        if "extra ==" not in requirement and not NOT_NEEDED.match(requirement):
            print(requirement)
    print("dill")  # imported without being required: it comes with datasets


if __name__ == "__main__":
    main()
