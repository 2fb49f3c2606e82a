"""What is fitted outside the network's training: the linear probe, baselines, the calibration."""
