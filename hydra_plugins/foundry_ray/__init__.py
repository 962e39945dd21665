"""foundry as a plug-in of Hydra."""
