"""Ways to cut a problem into thoughts, one file each; see `foreword.prompting.decomposition`."""
