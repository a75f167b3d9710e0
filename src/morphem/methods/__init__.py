"""The methods: name -> module. A module has `Config`, `REFERENCES` and `fit(dataset, config, run) -> Ensemble`."""

METHODS: dict[str, str] = {
    "backproject": "morphem.methods.backproject",
    "vae": "morphem.methods.vae",
}
