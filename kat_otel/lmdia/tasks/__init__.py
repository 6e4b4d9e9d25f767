"""The benchmark's tasks: 7 models x 2 engines x 3 loads, and a healthy step of each."""
