"""`python -m foreword`, the same as `foreword`; what `torchrun -m foreword tune …` starts on every device."""

from foreword.cli import main

if __name__ == "__main__":
    main()
