"""The steps of the pipeline, as Kubeflow components; each calls one function of the library."""
