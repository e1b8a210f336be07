"""What is measured on a GPU, one function a stage; `gpu.py` runs them, `gpu_session.py` decides which and when."""
