"""Report: figures and pages made from comparisons."""
