"""The variable that asks for recording where vLLM's command line cannot be touched. Imports nothing."""

ENVIRONMENT = "TRACEREEL_VLLM"
