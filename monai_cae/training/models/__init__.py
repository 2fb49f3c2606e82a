"""What is fitted beside the network's own training: the linear probe, simpler models, the calibration."""
