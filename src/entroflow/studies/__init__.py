"""The studies behind the commands: one folder per question, with its protocol, measures and figures."""
