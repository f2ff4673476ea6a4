"""Max-entropy LQR, SAC-ISFM against the exact optimum (Section IV)."""
