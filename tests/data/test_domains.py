"""Documents one by one are the store's tokens in their order."""

import numpy as np

from dograph.data.domains import Documents, DomainSequences


def test_documents_end_to_end_are_the_sequences(store):
    for entry in store.domains:
        for split in ("train", "validation"):
            documents = Documents(store, entry.name, split)
            assert len(documents) == len(store.document_ends(entry.name, split))
            ended = [np.append(documents[i], store.end_of_text) for i in range(len(documents))]
            tokens = np.concatenate(ended)
            sequences = DomainSequences(store, entry.name, split, 31)
            assert len(tokens) // 32 == len(sequences)
            for index in range(len(sequences)):
                assert np.array_equal(tokens[index * 32 : (index + 1) * 32], sequences[index])
