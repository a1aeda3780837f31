"""The command `koinon`, made of the SDK. Every file holds one noun; what is heavy is imported when it is used."""
