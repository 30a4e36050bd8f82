"""What is learned of a server is known from then on."""


def test_a_server_that_gave_an_id_again_is_remembered(storage):
    servers = storage.servers
    assert not servers.reuses_ids("http://server/v1")
    servers.note_reused_ids("http://server/v1")
    servers.note_reused_ids("http://server/v1")
    assert servers.reuses_ids("http://server/v1")
    assert not servers.reuses_ids("http://other/v1")
