"""The experiments of the paper as studies: records, claims, figures and one page a scale."""
