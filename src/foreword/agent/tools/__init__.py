"""Tools that come with Foreword, one file each; see `foreword.prompting.tool`."""
