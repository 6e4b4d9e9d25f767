class DeepSpeedEngine:
    def forward(self, *inputs, **kwargs):
        return inputs
