"""Parts of MONAI's and Ignite's engines: loaders, inferers, handlers, metrics."""
