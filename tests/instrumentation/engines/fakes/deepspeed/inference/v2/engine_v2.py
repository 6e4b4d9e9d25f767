class InferenceEngineV2:
    def put(self, batch_uids, batch_tokens, do_checks=True):
        return batch_uids
