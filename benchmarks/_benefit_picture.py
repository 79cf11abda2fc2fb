def picture_of(records):
    return ""
