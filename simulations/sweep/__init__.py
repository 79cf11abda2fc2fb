"""Many simulations of one study, side by side: run once each, in parallel, and compared in one report."""
