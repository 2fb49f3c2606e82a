"""What the network sees of a volume: headers, bytes, planes, and scans that can't be used."""
