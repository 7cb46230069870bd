"""Every limit of the protocol, with its unit. A size is compared with its limit before the content is parsed."""

KIB = 1024
MIB = 1024 * KIB

MAX_NAME_CHARACTERS = 48
"""Fleet, shard, device and task names."""

MAX_SHARDS = 64
"""Of one fleet: they stand in every manifest."""

MAX_AUTHORITIES = 4
"""Certificates of authorities that a device trusts at once: two while one takes the other's place."""
MAX_CERTIFICATE_BYTES = 3 * KIB
"""Of one, in DER: with an RSA key of 4096 bits it has half of that."""
MAX_COORDINATOR_KEYS = 16
"""A coordinator's key, and those that it has replaced; a device that slept through more is given the newest by hand."""

MAX_UPDATE_BYTES = 4 * MIB
"""A signed update, as it travels. The largest message that any device may publish."""

MAX_CONTROL_BYTES = 16 * KIB
"""Any other signed message except a blob chunk."""

MAX_STATISTICS_COLUMNS = 8192
"""Inputs and targets of one sample whose distribution a device tells, 24 bytes each."""

MAX_STATISTICS_BYTES = 256 * KIB
"""A signed message with that many."""

MAX_STYLE_CHARACTERS = 160
"""Of what a device's owner says of how its samples look or sound."""

MAX_CLASSES_IN_PROMPTS = 4096
"""Classes of a task whose devices tell prompts."""

MAX_CHUNK_BYTES = 64 * KIB
"""The payload of one blob chunk, before it is signed."""

MAX_SIGNED_CHUNK_BYTES = MAX_CHUNK_BYTES + 1 * KIB

MAX_PACKET_OVERHEAD_BYTES = 1 * KIB
"""Of an MQTT packet around a message: headers, topic, and properties that a broker may add. Ours take 250 at most."""

DIGEST_BYTES = 16
"""What names a payload in its header, and an envelope in its receipt."""

MAX_BLOB_BYTES = 64 * MIB
"""One file of a task bundle, or one version of the weights."""

MAX_PARAMETERS = 16 * 1024 * 1024
"""Trainable float32 parameters of one task."""

MAX_TENSORS = 4096
"""Tensors that those parameters may be spread over."""

MAX_BLOCKS = 64
"""That a model divides into for split learning."""

MAX_CUTS = 256
"""Ways to divide them between device and helper that a task may allow."""

MAX_CLUSTERS = 8
"""Copies of a task's parameters, each for a cluster of devices; every version holds all of them."""

MAX_ACTIVATION_VALUES = 1024
"""Values of a block's output whose means over a device's samples a helper tells."""

MAX_SUMMARY_BYTES = 8 * KIB
"""A signed message with that many."""

MAX_ROWS_PER_STEP = 4096
"""Samples of one mini-batch whose activations travel to a helper."""

MAX_STEP_VALUES = 16 * MIB
"""Values of the activations of one mini-batch that travel to a helper: 64 MiB in memory, as float32."""

MAX_PROBLEM_CHARACTERS = 400
"""Of the words in which a helper says why it can't answer."""

MAX_SESSION_MESSAGE_BYTES = 4 * MIB
"""One request or answer of a session, encrypted, before it is cut into frames."""

MAX_FRAME_BYTES = 64 * KIB
"""The content of one frame of a session, encrypted."""

SESSION_BYTES = 16
"""What names a session: random, so that no two are alike."""

MAX_SESSION_CONTROL_BYTES = 2 * KIB
"""A signed message that opens, grants, refuses, resumes or ends a session. The longest has 1.9 KiB, mostly words."""

MAX_REASON_CHARACTERS = 32
"""Of the word that says why a session is refused or ended."""

MAX_RETRY_SECONDS = 24 * 3600
"""A day: the longest that a device is asked to wait before it asks for a session again."""

MAX_OFFERED_TASKS = 64
"""That one helper serves."""

MAX_HELPER_SESSIONS = 256
"""That one helper serves at once."""

MAX_HELPERS_LEFT_OUT = 8
"""That a device names in an opening, as it does without them for a while."""

MAX_REQUESTS_IN_FLIGHT = 64
"""Of one session, not answered yet."""

SESSION_CREDIT_BYTES = 4 * MIB
"""What one end of a session may send before the other has said that it takes more."""

MAX_SAMPLE_FIELDS = 64
"""Inputs of one sample, and heads of one model, that have names of their own."""

MAX_READING_FIELDS = 256
"""Named fields of a reading, and values of a category."""

MAX_WINDOW_VALUES = 64 * KIB
"""Inputs of one sample that is made of a window of readings: each new reading makes one."""

MAX_AVERAGED_VERSIONS = 1000
"""Versions that the model to use may be the mean of."""

MAX_SEQUENCE = 2**63 - 1
"""Sequence numbers, versions and lives: what a signed 64-bit database column holds."""

MAX_SETTING = 2**31 - 1
"""A whole number in a task, a configuration or on a command line that nothing else bounds: fits every library and
database, also as MiB in bytes."""

MAX_GENERATION = 2**31 - 1
"""Generations of a task: one for each restored backup or changed bundle."""

MAX_NAMED_GENERATION = 2**30
"""An operator can't let a task's generations continue after a number above this: as many are left from here."""

BOOT_SHIFT = 32
"""What is not journalled is numbered `boot << BOOT_SHIFT | counter`, which grows over a device's life."""

MAX_BOOT = MAX_SEQUENCE >> BOOT_SHIFT
"""Boot numbers: 2^31 - 1, so that `boot << BOOT_SHIFT | counter` is at most MAX_SEQUENCE. A device that gets there
stays there, and its requests need not grow any more."""

MAX_CONTINUED_SEQUENCE = 2**62
"""A device does not continue behind a receipt's sequence number above this: few would be left. Any unused number below
it is taken too, and from here a device can count for ever."""

MAX_OPEN_QUERIES = 4
"""About the samples of one task, asked at the same time."""

MAX_QUERIES_BYTES = 64 * KIB
"""A signed message with these: what is long in it are prefixes of words, a few characters each."""

MAX_QUERY_NUMBER = 2**53 - 1
"""Of a query, which is drawn at random: whole in every number that JSON has."""

MAX_QUERY_CONDITIONS = 8
"""In the filter of one query."""

MAX_QUERY_ROUNDS = 64
"""Of one query, each after the answers to the one before."""

MAX_FIELD_CHARACTERS = 96
"""Of the name of a field that a query is about: `input.NAME[8191]`, with a name of 48 characters."""

MAX_ANSWER_NUMBERS = 512
"""In one answer to a query: 9 bytes each, so that all fit a control message."""

MAX_WORD_CHARACTERS = 32
"""Of a word that devices vote for."""

MAX_PREFIXES = 1024
"""Of words, that one round of votes takes further."""

MAX_PREFIX_BYTES = 8 * KIB
"""Of all these together, in UTF-8: so that the queries of a task fit their message."""

SMALLEST_EPSILON = 1e-3
"""Of one round of a query: with less, noise is a thousand times what it hides, and the numbers have no bounds."""

MAX_EPSILON = 64.0
"""Of one query: e^64 is no privacy, and still far from the largest float64."""

MAX_MASK_HELPERS = 5
"""Of one cohort of secure aggregation."""

MAX_MASK_SEEDS = 10
"""That a device draws for them: 5 helpers of which 2 may collude, or 3."""

MAX_SEALED_SEEDS_BYTES = 16 * MAX_MASK_SEEDS + 16
"""Of one helper's box of them."""

MAX_COHORT_DEVICES = 1024
"""Whose updates are summed behind masks: the values of a set of so many stay below MAX_CBOR_ITEMS."""

MAX_MASK_REQUEST_BYTES = 2 * MIB
"""Of what a mask helper is asked: the seeds of 1,024 devices for five helpers."""

MAX_TOP_POSITIONS_BYTES = 7 * KIB
"""Of the positions that a cohort's manifest names, about one byte each."""

MAX_COHORT_MANIFEST_BYTES = MAX_TOP_POSITIONS_BYTES + 1 * KIB
"""Of a cohort's signed manifest, which travels in the manifest of the version."""

MAX_MASK_REFUSAL_CHARACTERS = 300
"""Of why a mask helper does not do what it is asked."""

MAX_STALENESS_WEIGHT = 4
"""Of one update behind a mask, a whole number from 1."""

MAX_ROSTER_DEVICES = 1024
"""That learn one task without a coordinator: each of them hears of all."""

MAX_ROSTER_BYTES = 96 * KIB
"""A signed message with so many: 85 bytes for a name of 48 characters and its key."""

MAX_CBOR_DEPTH = 8
"""Nesting of any CBOR item in the protocol; the deepest message we write has depth 5."""

MAX_CBOR_ITEMS = MAX_CONTROL_BYTES
"""Values in any CBOR item in the protocol: as many as a control message has bytes. Larger messages hold one long byte
string; made of empty arrays instead, they would take seventy times their size in memory."""

MAX_WAIT_SECONDS = 7 * 24 * 3600
"""A week: the longest time limit or interval of a program's settings. Timers take no infinity."""

MAX_ROUND_SECONDS = 1e9
"""Thirty years, in effect never: the longest deadline of a synchronous round."""

MAX_LOSS = 1e12
"""Magnitude of a declared mean loss, in the task's own unit: the mean squared error of values around a million. Sums of
as many as a journal can hold stay far below the largest float64."""

MAX_STATISTIC_CHANGE = 2.0**80
"""Magnitude by which one update may change a running statistic, in the unit of the inputs or its square: the variance
of values around a million million. Sums of as many as a journal can hold are finite in float32."""

MAX_STEPS_PER_UPDATE = 1_000_000_000
"""Declared training steps of one round: years on a small device."""

MAX_SAMPLES_PER_UPDATE = 1_000_000
"""A declared sample count above this is refused: it would outweigh the rest of the fleet."""
