"""The command lqr: SAC-ISFM on max-entropy LQR against the exact optimum (section IV)."""
