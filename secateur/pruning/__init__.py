"""Which samples train: the method interface, the methods, the mask, the sampler."""
