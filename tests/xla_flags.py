"""Flags of XLA for programs that are compiled for longer than they compute."""

# Without LLVM's optimisation, and with the older of two ways to emit fusions, which
# takes a third of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
