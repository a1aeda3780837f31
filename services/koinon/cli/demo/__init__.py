"""The demonstration: the whole job on real data, with a report one would put into a talk."""
