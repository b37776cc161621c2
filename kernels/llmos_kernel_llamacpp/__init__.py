"""The llama.cpp kernel: GGUF models on CPU or GPU, through the low-level interface of llama-cpp-python."""
