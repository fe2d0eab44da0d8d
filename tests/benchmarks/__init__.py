"""Side-by-side benchmarks: the same networks trained by nnspec, PyTorch and JAX on the same machine in one run."""
