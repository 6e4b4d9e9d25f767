class InferenceEngine:
    def forward(self, *inputs, **kwargs):
        return inputs
