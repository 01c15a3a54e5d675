"""Can the model and the method be trusted on this scan?"""
