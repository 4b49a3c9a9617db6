"""The page on what was misread, which --mode=evaluate writes as errors.html."""
