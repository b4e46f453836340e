"""What became of each request, while it is becoming: compact columns, one entry per request."""

from __future__ import annotations

from array import array

import numpy as np

from simserve.records.clock import NEVER_PS
from simserve.records.requests import RequestTable
from simserve.records.run_record import RequestOutcomes, TokenGaps


class RequestLedger:
    """Mutable columns that a run fills in and ``RequestOutcomes`` freezes."""

    def __init__(self, requests: RequestTable, max_model_len: int) -> None:
        count = len(requests)
        self.status = bytearray(count)
        self.replica = array("q", bytes(8 * count))
        self.first_scheduled_ps = array("q", [NEVER_PS]) * count
        self.first_token_ps = array("q", [NEVER_PS]) * count
        self.finish_ps = array("q", [NEVER_PS]) * count
        self.generated_tokens = array("q", bytes(8 * count))
        self.preemptions = array("q", bytes(8 * count))
        self.cached_tokens = array("q", bytes(8 * count))
        self.first_token_step = array("q", bytes(8 * count))
        self.last_token_step = array("q", bytes(8 * count))
        # Generation stops at the asked length or when the context is full.
        stop = np.minimum(requests.output_tokens, max_model_len - requests.prompt_tokens)
        self.stop_tokens: list[int] = stop.tolist()
        give_up_ps = requests.give_up_ps
        self.give_up_ps: list[int] | None = None if give_up_ps is None else give_up_ps.tolist()
        self.gap_request = array("q")
        self.gap_previous_step = array("q")
        self.gap_step = array("q")
        self.gap_as_decode = bytearray()

    def note_gap(self, request: int, previous_step: int, step: int, as_decode: bool) -> None:
        """Note that a token did not follow its predecessor in the very next step."""
        self.gap_request.append(request)
        self.gap_previous_step.append(previous_step)
        self.gap_step.append(step)
        self.gap_as_decode.append(as_decode)

    def outcomes(self) -> RequestOutcomes:
        """Return the columns as arrays."""
        return RequestOutcomes(
            status=np.frombuffer(bytes(self.status), dtype=np.uint8),
            replica=np.array(self.replica, dtype=np.int64),
            first_scheduled_ps=np.array(self.first_scheduled_ps, dtype=np.int64),
            first_token_ps=np.array(self.first_token_ps, dtype=np.int64),
            finish_ps=np.array(self.finish_ps, dtype=np.int64),
            generated_tokens=np.array(self.generated_tokens, dtype=np.int64),
            preemptions=np.array(self.preemptions, dtype=np.int64),
            cached_tokens=np.array(self.cached_tokens, dtype=np.int64),
            first_token_step=np.array(self.first_token_step, dtype=np.int64),
            last_token_step=np.array(self.last_token_step, dtype=np.int64),
        )

    def gaps(self) -> TokenGaps:
        """Return the noted gaps as arrays."""
        return TokenGaps(
            request=np.array(self.gap_request, dtype=np.int64),
            previous_step=np.array(self.gap_previous_step, dtype=np.int64),
            step=np.array(self.gap_step, dtype=np.int64),
            as_decode=np.frombuffer(bytes(self.gap_as_decode), dtype=np.bool_),
        )
