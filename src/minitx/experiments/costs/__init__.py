"""What training costs: a step taken apart, scaling, a dry run, an estimate."""
