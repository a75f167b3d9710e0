"""morphem: the ensemble of shapes a molecule takes, from cryo-EM particle images."""

__version__ = "0.1.0"
