"""What every experiment uses: building, runs, metrics, checkpoints."""
