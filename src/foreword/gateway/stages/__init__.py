"""The stages of the path, one file each; see `foreword.gateway.stage`."""
