"""As versions before 0.33 have it; newer ones have no such class."""

try:
    import sys as ray

    class RayWorkerWrapper:
        def __init__(self, worker):
            self.worker = worker

        def execute_model_ray(self, execute_model_input):
            self.worker.run()
            return execute_model_input

except ImportError:
    ray = None
