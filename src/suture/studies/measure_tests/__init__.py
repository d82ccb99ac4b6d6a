"""Tests of similarity measures: what a measure must show before its numbers mean anything."""
