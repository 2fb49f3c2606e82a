"""What of a volume the network sees: headers, bytes, planes, and scans that can't be used."""
