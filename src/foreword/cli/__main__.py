"""`python -m foreword.cli`, which is what `torchrun -m foreword.cli tune …` starts on every device."""

from foreword.cli import main

if __name__ == "__main__":
    main()
