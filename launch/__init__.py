"""Starting a run on more than one process: this machine, TPU pods, GKE, SLURM."""
