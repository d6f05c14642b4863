"""The simulated caller's lines as sound; NOTICE says where they come from."""
