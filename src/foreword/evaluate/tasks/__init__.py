"""Reference tasks, one file each; see `foreword.evaluate.task_source`."""
