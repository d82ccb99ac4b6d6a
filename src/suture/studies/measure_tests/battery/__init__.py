"""The tests of measures, each a function from the values of a population to outcomes."""
