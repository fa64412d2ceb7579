"""The process in which plugin code runs: messages, requests, parent, child."""
